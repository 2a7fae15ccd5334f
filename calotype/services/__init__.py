"""What `calotype up` keeps running: programs under supervisord, their health, a page of addresses, automations.

Imports neither Prefect nor MLflow: both are asked by HTTP, and run as programs of this interpreter.
"""
