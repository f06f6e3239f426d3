#!/bin/bash
# Dumps the linked database.
. /recipe/access.sh
pg_dump --format=custom --file=/backups/shop.dump shop
echo "dumped $TARGET_NAME"
