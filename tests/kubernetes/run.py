"""flowtel in a real Kubernetes: make test-kubernetes. Root, two CPUs, some minutes; docs/kubernetes.md has what it proves.

    run.py [PART OF A NAME...]       only these scenarios"""
import os, sys

import chart
from cluster import Cluster
from lab import Lab
from stand import Checks
from scenarios import admission, names, owners, sidecar, talks, updates

SCENARIOS = [*admission.ALL, *talks.ALL, *updates.ALL, *sidecar.ALL, *owners.ALL, *names.ALL]


def main():
    if os.geteuid(): raise SystemExit("skipped: a node wants to be root")
    wanted = [(what, test) for what, test in SCENARIOS if not sys.argv[1:] or any(word in what for word in sys.argv[1:])]
    all = Checks()
    if not sys.argv[1:]: chart.checks(all)
    with Cluster() as cluster:
        lab = Lab(cluster)
        lab.prepare()
        for what, test in wanted: all.check(what, lambda: test(lab))
    return all.close()


if __name__ == "__main__": sys.exit(main())
