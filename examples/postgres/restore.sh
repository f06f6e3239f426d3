#!/bin/bash
# Puts a dump into the linked database: all of it or nothing.
. /recipe/access.sh
pg_restore --clean --if-exists --single-transaction --dbname=shop /backups/shop.dump
echo "restored into $TARGET_NAME"
