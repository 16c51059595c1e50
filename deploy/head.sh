#!/bin/bash
# The head of a Ray cluster and the server beside it, in one container: bash head.sh [OPTION OF THE NODE]...
#
# The options are those of `influencerai node start`; RAY_ADDRESS is the head's address. When one of the two ends,
# so does the other, and the container with them. The server ends first: trainings save their states while the cluster
# still runs.
set -u
head='' server=''

end() {
    trap '' TERM INT
    for process in $server $head; do
        kill "$process" 2>/dev/null
        wait "$process"
    done
    exit "$1"
}
trap 'end 0' TERM INT

# Only the server needs the secrets: nothing else is deployed on this cluster.
env -u INFLUENCERAI_DATABASE_URL -u INFLUENCERAI_JWT_SECRET influencerai node start --head "$@" &
head=$!
until (: </dev/tcp/"${RAY_ADDRESS/://}") 2>/dev/null; do
    kill -0 "$head" 2>/dev/null || end 1
    sleep 0.5
done
influencerai serve &
server=$!
wait -n "$head" "$server"
end $?
