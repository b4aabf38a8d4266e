#!/usr/bin/env bash
# One-shot of docker-compose.yml: Airflow's tables, and the login that AIRFLOW_PASSWORD names.
set -euo pipefail
umask 077
python -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_PASSWORD"]}))' \
    > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
exec airflow db migrate
