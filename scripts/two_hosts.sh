#!/usr/bin/env bash
# Two "hosts" on one machine: network namespaces that are joined by a virtual cable. Needs root, iproute2 and OpenMPI 4.
#
#   scripts/two_hosts.sh up [RATE]            makes them; RATE limits the cable in both directions, such as 1gbit
#   scripts/two_hosts.sh run RANKS COMMAND... runs a command on RANKS ranks on each of them
#   scripts/two_hosts.sh cut                  cuts the cable
#   scripts/two_hosts.sh down                 removes them
set -euo pipefail
first=gmflow-host-a
second=gmflow-host-b
address=10.77.41

# What mpirun calls to start its part on the other host: the address, then a command.
if [ "${1:-}" = agent ]; then
    shift 2
    exec ip netns exec "$second" unshare --uts sh -c "hostname $second; $*"
fi

case "${1:-}" in
up)
    ip netns add "$first"
    ip netns add "$second"
    ip link add "$first" netns "$first" type veth peer name "$second" netns "$second"
    ip -n "$first" addr add "$address.1/24" dev "$first"
    ip -n "$second" addr add "$address.2/24" dev "$second"
    for host in "$first" "$second"; do
        ip -n "$host" link set lo up
        ip -n "$host" link set "$host" up
        if [ -n "${2:-}" ]; then
            # A burst of a few milliseconds, as the queue of a network card has.
            tc -n "$host" qdisc add dev "$host" root tbf rate "$2" burst 1mb latency 100ms
        fi
    done
    ;;
run)
    ranks=$2
    shift 2
    agent=$(mktemp)
    printf '#!/bin/sh\nexec "%s" agent "$@"\n' "$(realpath "$0")" >"$agent"
    chmod +x "$agent"
    # exec: a signal to this process reaches the launcher.
    exec ip netns exec "$first" unshare --uts sh -c "hostname $first; exec \"\$0\" \"\$@\"" \
        mpirun --allow-run-as-root --oversubscribe --bind-to none \
        --mca plm_rsh_agent "$agent" --mca btl tcp,self --mca btl_tcp_if_include "$address.0/24" \
        --mca oob_tcp_if_include "$address.0/24" --mca mpi_yield_when_idle 1 \
        --host "$address.1:$ranks,$address.2:$ranks" -n $((2 * ranks)) \
        -x RAYON_NUM_THREADS -x PATH "$@"
    ;;
cut)
    ip -n "$first" link set "$first" down
    ;;
down)
    ip netns del "$first" || true
    ip netns del "$second" || true
    ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
