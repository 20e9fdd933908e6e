#!/bin/sh
# Makes Temporal's two databases and brings their schemas up to date; may run again at any time.
# POSTGRES_SEEDS and POSTGRES_USER say where and as whom, SQL_PASSWORD is read by the tool itself.
set -eu

for pair in temporal:temporal temporal_visibility:visibility; do
    database=${pair%%:*}
    folder=${pair##*:}
    tool="temporal-sql-tool --plugin postgres12 --ep $POSTGRES_SEEDS -p 5432 -u $POSTGRES_USER --db $database"
    $tool create
    $tool setup-schema -v 0.0
    $tool update-schema -d "/etc/temporal/schema/postgresql/v12/$folder/versioned"
done
