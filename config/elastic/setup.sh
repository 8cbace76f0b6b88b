#!/usr/bin/env bash
# Puts flowtel's index templates into Elasticsearch: before the first record, because the first document of a data
# stream fixes the mapping. Run by docker compose (service elastic-setup); by hand:
#   ELASTICSEARCH=http://127.0.0.1:9200 config/elastic/setup.sh
# Running it again changes nothing. A further curl option, a key for instance, goes into CURL_CONFIG, a curl config file.
set -euo pipefail

es=${ELASTICSEARCH:-http://127.0.0.1:9200}
here=$(cd "$(dirname "$0")" && pwd)
curl=(curl -sS --fail-with-body --retry 10 --retry-connrefused --retry-delay 2)
[ -z "${CURL_CONFIG:-}" ] || curl+=(--config "$CURL_CONFIG")

# Compose shows PROFILES what its variable says. Set and without this profile: it was started with --profile, and the
# first collector was told to hand nothing on.
if [ "${PROFILES-elastic}" != elastic ]; then
    echo "setup: the profile elastic is on, but COMPOSE_PROFILES is '$PROFILES': no record would come here." >&2
    echo "setup: start it as  COMPOSE_PROFILES=elastic docker compose up" >&2
    exit 1
fi

put() { # name, file
    "${curl[@]}" -X PUT "$es/_index_template/$1" -H 'content-type: application/json' --data-binary "@$here/$2" ||
        { echo >&2; echo "setup: $es did not take the template $1 ($2)" >&2; exit 1; }
    echo " $1"
}
put logs-flowtel.otel template.json
put logs-flowtel template-ecs.json
