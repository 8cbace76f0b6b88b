"""What the values hostPID and rights buy, and what is missing without."""
import subprocess

import records


def talk(lab):
    server = lab.pods["guaranteed"]
    made = lab.dial("burstable", 3, f"{server.ip}:8082")
    ends = set(made)
    own = lambda record: records.ends(record) in ends
    found = lab.records(lambda all: sum(records.tally(all, own).values()) >= 12)
    return [r for r in found if "destination.address" in r and own(r)]


def with_host_pids(lab):
    found = talk(lab)
    assert len(found) == 12, len(found)
    for record in found: assert record.get("process.executable.path") == "/talker", record


def without_host_pids(lab):
    """The server was there before flowtel, so only /proc could tell its executable. In flowtel's own namespace of process ids the
    same number is given to another program: its name must not be told."""
    lab.helm(**{"agent.hostPID": "false"})
    try:
        server = lab.pods["guaranteed"]
        listed = lab.cluster.inside("ctr", "-n", "k8s.io", "tasks", "ls").stdout.splitlines()
        pid = next(int(line.split()[1]) for line in listed if line.startswith(server.container))
        enter = ["nsenter", "-t", str(lab.agent_process()), "--pid", "--"]
        subprocess.run([*enter, "sh", "-c", f"echo {pid - 1} > /proc/sys/kernel/ns_last_pid"], check=True)
        decoy = subprocess.Popen([*enter, "sleep", "60"])
        try:
            seen = subprocess.run([*enter, "readlink", f"/proc/{lab.agent_process()}/root/proc/{pid}/exe"], capture_output=True, text=True)
            assert "sleep" in seen.stdout or "coreutils" in seen.stdout, f"the number {pid} is not taken: {seen}"
            found = talk(lab)
        finally:
            decoy.kill()
            decoy.wait()
        assert len(found) == 12, len(found)
        accepted = [r for r in found if r["flowtel.flow.direction"] == "incoming"]
        for record in accepted:
            assert record["process.pid"] == pid and record["thread.name"] == "talker", record
            assert "process.executable.path" not in record, record
            assert record["k8s.pod.uid"] == server.uid, record
        for record in found: assert record.get("process.executable.path") in (None, "/talker"), record
    finally: lab.helm(**{"agent.hostPID": "true"})


def fewest_rights(lab):
    lab.helm(**{"rights.executables": "false", "rights.containers": "false"})
    try:
        # The search for cgroups takes its time; by then they are known.
        talk(lab)
        found = talk(lab)
        assert len(found) == 12, len(found)
        server = lab.pods["guaranteed"]
        for record in found:
            if record["flowtel.flow.direction"] == "incoming": assert record.get("k8s.pod.uid") in (None, server.uid), record
        assert any("k8s.pod.uid" in record for record in found), "no pod is known"
    finally: lab.helm(**{"rights.executables": "true", "rights.containers": "true"})


ALL = [
    ("with hostPID each record has its executable", with_host_pids),
    ("without hostPID none has another process's, though the same number is taken in the pod", without_host_pids),
    ("with the three required rights alone flows are recorded, and pods once they were found", fewest_rights),
]
