#!/usr/bin/env bash
# Puts flowtel's index templates into Elasticsearch 8.18 or newer, or OpenSearch 2.19 or newer: before the first record, because the first document of a
# data stream fixes the mapping. Docker compose runs it (service elastic-setup). By hand:
#   ELASTICSEARCH=http://127.0.0.1:9200 config/elastic/setup.sh
#
# Running it again brings the templates up to date. They hold for the next backing index: the script says how to begin one.
#
#   ELASTICSEARCH      where it is
#   FLOWTEL_RETENTION  how long documents are kept, such as 30d; not set: for ever
#   FLOWTEL_STORE      elasticsearch (when not set) or opensearch
#   CURL_CONFIG        a curl configuration file, for a key (header = "authorization: ApiKey …") or a CA (cacert = …)
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

put() { # kind, name; the body comes from standard input
    local answer
    if ! answer=$("${curl[@]}" -X PUT "$es/$1/$2" -H 'content-type: application/json' --data-binary @-); then
        echo "setup: $es refused $1/$2: $answer" >&2
        exit 1
    fi
    echo "setup: $2: in place"
}

store=${FLOWTEL_STORE:-elasticsearch}
retention=${FLOWTEL_RETENTION:-}
case $store in
    elasticsearch) ;;
    opensearch)
        if [ -n "$retention" ]; then
            echo "setup: OpenSearch has no FLOWTEL_RETENTION: it deletes by an ISM policy of yours (docs/elastic.md)" >&2
            exit 64
        fi
        put _index_template logs-flowtel.otel <"$here/template-opensearch.json"
        echo "setup: done; documents are kept until a policy of yours deletes them"
        exit 0
        ;;
    *) echo "setup: FLOWTEL_STORE is '$store'; expected elasticsearch or opensearch" >&2; exit 64 ;;
esac
case $retention in
    "") lifecycle='{}' ;;
    *[!0-9a-z]* | [!0-9]*) echo "setup: FLOWTEL_RETENTION is '$retention'; expected a time such as 30d" >&2; exit 64 ;;
    *) lifecycle="{\"lifecycle\": {\"data_retention\": \"$retention\"}}" ;;
esac
put _component_template flowtel@retention <<<"{\"template\": $lifecycle}"
put _index_template logs-flowtel.otel <"$here/template.json"
put _index_template logs-flowtel <"$here/template-ecs.json"

# A stream that is there goes on with the mapping of its newest backing index.
for stream in logs-flowtel.otel-default logs-flowtel-default; do
    if "${curl[@]}" -o /dev/null "$es/$stream" 2>/dev/null; then
        echo "setup: $stream is there already. A changed template holds from its next backing index on: curl -X POST $es/$stream/_rollover"
    fi
done
echo "setup: done; documents are kept ${retention:-for ever}"
