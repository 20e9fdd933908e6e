#!/bin/sh
# Makes the namespace and registers the search attributes of Perstack; may run again at any time.
# TEMPORAL_ADDRESS says where; it is read by the temporal program itself.
set -eu

namespace=${TEMPORAL_NAMESPACE:-default}

register() {
    kind=$1
    shift
    for name in "$@"; do
        # A server learns of a new namespace only after a while.
        attempt=0
        until temporal operator search-attribute create --namespace "$namespace" --name "$name" --type "$kind"; do
            attempt=$((attempt + 1))
            test "$attempt" -lt 30 || exit 1
            sleep 1
        done
    done
}

until temporal operator cluster health; do
    echo "waiting for Temporal at $TEMPORAL_ADDRESS" >&2
    sleep 2
done

if ! temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1; then
    # The history of a run is its only record: when its retention is over, the run is gone.
    temporal operator namespace create --namespace "$namespace" --retention "${TEMPORAL_RETENTION:-3650d}"
fi

register Keyword PerstackJob PerstackExpert PerstackStatus PerstackModel
register KeywordList PerstackTags
register Int PerstackTokens PerstackSteps

# The first line of every query, readable by whoever may list workflows: only when asked for.
if [ "${PERSTACK_SHOW_QUERIES:-0}" = 1 ]; then
    register Keyword PerstackQuery
fi
