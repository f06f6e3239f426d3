#!/bin/bash
# Puts the newest verified dump into the linked database.
set -euo pipefail
verified=$(ls -t /backups/*.verified | head -n 1)
export MYSQL_PWD=$(awk -F": *" "/^PASS/ {print \$2}" /secret/dbcreds.yml)
mysql -ubackup -h"$DATABASE_PORT_3306_TCP_ADDR" < "${verified%.verified}"
echo "restored ${verified%.verified} into $TARGET_NAME"
