"""ingestctl at a running server: every command as an operator or a script would use it."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from harness.client import admin_service_pb2, admin_service_pb2_grpc, status_pb2, transaction
from harness.consumer import read_all
from harness.paths import BUILD
from harness.process import free_port, wait_for
from harness.tools import run
from scripted_server import ok, refusal

INGESTCTL = str(BUILD / "release/ingestctl")
USAGE, REFUSED, NOT_FOUND, UNAVAILABLE, IO_ERROR, AGAIN, PROTOCOL, NOT_ALLOWED = 64, 65, 66, 69, 74, 75, 76, 77


def ctl(*words: str, server=None, input: str | None = None, expect: int = 0, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    connection = ["--server", server.target] if server else []
    done = subprocess.run([INGESTCTL, *words, *connection], input=input, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def ctl_json(*words: str, **given):
    return json.loads(ctl(*words, "--json", **given).stdout)


def line(number: int, **more: object) -> str:
    event = {"source": "shop", "key": f"u-{number}", "transaction": {"operations": [{"name": "create_user", "data": {"n": number}}]}}
    return json.dumps({**event, **more}) + "\n"


def lines(folder: Path, count: int) -> Path:
    file = folder / "events.jsonl"
    file.write_text("".join(line(number) for number in range(count)))
    return file


def published(it, kafka, ids: int) -> Counter[str]:
    wait_for(lambda: it.metrics().total("ingest_events_pending") == 0, "the drain", 60)
    records = read_all(kafka.bootstrap, it.transactions, until=ids)
    return Counter(record.headers["ce_id"].decode() for record in records)


# ---- publish


def test_publish_twice_is_publish_once(kafka, server, tmp_path):
    it = server(kafka)
    file = lines(tmp_path, 500)
    first = ctl_json("publish", str(file), server=it)
    again = ctl_json("publish", str(file), server=it)
    assert (first["stored"], first["duplicates"], first["refused"]) == (500, 0, 0)
    assert (again["stored"], again["duplicates"]) == (500, 500)
    counts = published(it, kafka, 500)
    assert len(counts) == 500 and set(counts.values()) == {1}


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_publish_interrupted_goes_on(kafka, server, tmp_path, how):
    it = server(kafka)
    file = lines(tmp_path, 3000)
    half = subprocess.Popen([INGESTCTL, "publish", str(file), "--rate", "2000", "--server", it.target], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    some = random.randint(1, 1500)
    wait_for(lambda: it.metrics().total("ingest_events_accepted_total") >= some, f"{some} to be stored", interval=0.02)
    half.send_signal(getattr(signal, how))
    _, said = half.communicate(timeout=30)
    if how == "SIGINT":
        assert half.returncode == AGAIN and b"goes on" in said, said
    assert it.metrics().total("ingest_events_accepted_total") < 3000
    rest = ctl_json("publish", str(file), server=it)
    assert rest["stored"] == 3000 and rest["duplicates"] > 0
    counts = published(it, kafka, 3000)
    assert len(counts) == 3000 and set(counts.values()) == {1}


def test_publish_interrupted_while_it_reads(kafka, server):
    """A pipe that stays open, with half a line in it: no event, and no error of reading."""
    it = server(kafka)
    words = [INGESTCTL, "publish", "--json", "--server", it.target]
    reading = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reading.stdin.write(line(1) + line(2)[:40])
    reading.stdin.flush()
    wait_for(lambda: it.metrics().total("ingest_events_accepted_total") == 1, "the first to be stored", interval=0.02)
    reading.send_signal(signal.SIGINT)
    assert reading.wait(10) == AGAIN
    said = reading.stdout.read(), reading.stderr.read()
    assert (json.loads(said[0])["stored"], json.loads(said[0])["refused"]) == (1, 0) and "stopped at 1" in said[1]


def test_publish_interrupted_while_nobody_answers(tmp_path):
    """^C waits a little for the answers, whatever --timeout is; the second one does not."""
    file = lines(tmp_path, 3)
    words = [INGESTCTL, "publish", str(file), "--json", "--timeout", "600000", "--server", f"127.0.0.1:{free_port()}"]
    patient, hasty = (subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2))
    try:
        time.sleep(0.5)
        for each in (patient, hasty, hasty):
            each.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert hasty.wait(2) == -signal.SIGINT
        out, _ = patient.communicate(timeout=8)
        assert patient.returncode == AGAIN and json.loads(out)["unanswered"] == 3
    finally:
        patient.kill()
        hasty.kill()


def test_publish_ends_at_what_concerns_all(scripted, tmp_path):
    """No token, another server, or nobody: the rest of the file is not tried."""
    file = lines(tmp_path, 20000)
    for code, expected in ((grpc.StatusCode.UNAUTHENTICATED, NOT_ALLOWED), (grpc.StatusCode.UNIMPLEMENTED, PROTOCOL)):
        it = scripted(lambda event, code=code: refusal(code, "said the script"))
        done = ctl("publish", str(file), "--json", "--window", "100", server=it, expect=expected)
        assert "said the script" in done.stderr and len(it.events) < 1000
    silent = scripted(lambda event: None)
    done = ctl("publish", str(file), "--json", "--window", "100", "--timeout", "500", server=silent, expect=UNAVAILABLE)
    assert len(silent.events) <= json.loads(done.stdout)["unanswered"] < 1000


def test_publish_tells_what_is_refused(server, kafka, tmp_path):
    it = server(kafka)
    text = (
        line(1, id="good-1")
        + "\n"  # empty lines count, and are passed over
        + '{"source": "shop", "transaction": {"operations": [{"name": "create_user", "dta": {}}]}}\n'
        + line(2, id="bad", transaction={"operations": [{"name": "no_such_operation"}]})
        + '{"source": "shop"\n'
        + line(3, id="good-2", time="2026-01-31T12:00:00+02:00", attributes={"a": "b"})
        + line(4, id="late", time="yesterday")
    )
    done = ctl("publish", "--rejects", str(tmp_path / "rejects"), server=it, input=text, expect=REFUSED)
    assert "2 stored" in done.stdout and "4 refused" in done.stdout
    said = dict(each.split(": ", 1) for each in done.stderr.splitlines() if re.match(r"\d+: ", each))
    assert set(said) == {"3", "4", "5", "7"}
    assert "event.transaction.operations[0]" in said["3"] and '"dta"' in said["3"]
    assert "event.transaction.operations[0].name" in said["4"] and "no_such_operation" in said["4"]
    assert "event.time" in said["7"]
    rejects = (tmp_path / "rejects").read_text().splitlines()
    assert [text.splitlines()[number - 1] for number in (3, 4, 5, 7)] == sorted(rejects, key=text.splitlines().index)
    kept = (tmp_path / "rejects").read_text()
    ctl("publish", str(tmp_path / "rejects"), "--rejects", str(tmp_path / "rejects"), server=it, expect=USAGE)
    assert (tmp_path / "rejects").read_text() == kept


def test_publish_a_document_and_a_pipe(server, kafka, tmp_path):
    it = server(kafka)
    document = tmp_path / "events.json"
    document.write_text(json.dumps([json.loads(line(number)) for number in range(3)], indent=2))
    assert ctl_json("publish", str(document), server=it)["stored"] == 3
    assert ctl_json("publish", str(document), server=it)["duplicates"] == 3
    assert ctl_json("publish", "-", "--id-prefix", "night", server=it, input=line(1) + line(2))["stored"] == 2
    assert ctl_json("publish", "--id-prefix", "night", server=it, input=line(1) + line(2))["duplicates"] == 2
    assert ctl_json("publish", server=it, input=line(1))["duplicates"] == 0  # a pipe: a random id
    notice = {"informative": {"name": "generate_otp", "entityId": "u-1", "raw": "AAEC"}}
    assert ctl_json("publish", "--source", "otp", "--ack", "published", server=it, input=json.dumps(notice))["stored"] == 1
    ctl("publish", str(tmp_path / "nothing"), server=it, expect=NOT_FOUND)
    ctl("publish", "--rate", "many", server=it, input="", expect=USAGE)
    ctl("publish", "--id-prefix", "x" * 201, server=it, input="", expect=USAGE)


def test_publish_shows_progress_on_a_terminal_only(server, kafka, tmp_path):
    it = server(kafka)
    file = lines(tmp_path, 200)
    leader, follower = pty.openpty()
    done = subprocess.run([INGESTCTL, "publish", str(file), "--server", it.target, "--rate", "400"], stdout=subprocess.PIPE, stderr=follower, timeout=60)
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0 and "200 stored" in shown and "####" in shown
    assert ctl("publish", str(file), server=it).stderr == ""


def test_no_server(tmp_path):
    nobody = f"127.0.0.1:{free_port()}"
    for words in (["backlog"], ["status", "x", "--source", "s"], ["dead", "list"], ["dead", "replay", "transactions", "1"]):
        assert ctl(*words, "--server", nobody, "--timeout", "500", expect=UNAVAILABLE).stderr.startswith("ingestctl ")
    file = lines(tmp_path, 2)
    done = ctl("publish", str(file), "--server", nobody, "--timeout", "500", "--json", expect=UNAVAILABLE)
    assert json.loads(done.stdout)["unanswered"] == 2


# ---- looking


def test_status_and_backlog(server, kafka):
    it = server(kafka)
    ctl("publish", server=it, input=line(1, id="one"))
    wait_for(lambda: ctl_json("status", "one", "--source", "shop", server=it)["state"] == "EVENT_STATE_PUBLISHED", "it to be published")
    assert "sequence  1" in ctl("status", "one", "--source", "shop", server=it).stdout
    assert "state     UNKNOWN\n" in ctl("status", "two", "--source", "shop", server=it, expect=NOT_FOUND).stdout
    ctl("status", "one", server=it, expect=USAGE)
    routes = {route["route"]: route for route in ctl_json("backlog", server=it)["routes"]}
    assert routes["transactions"]["published"] == "1" and routes["transactions"]["state"] == "PUBLISHER_STATE_RUNNING"
    assert re.search(r"^transactions +RUNNING +0 ", ctl("backlog", server=it).stdout, re.MULTILINE)
    environment = {**os.environ, "INGEST_SERVER": it.target}
    watching = subprocess.Popen([INGESTCTL, "backlog", "--watch=1"], stdout=subprocess.PIPE, text=True, env=environment)
    time.sleep(2.5)
    watching.terminate()
    assert watching.communicate(timeout=10)[0].count("ROUTE") >= 2


def test_tail(server, kafka):
    it = server(kafka)
    ctl("publish", "--ack", "published", server=it, input=line(1, id="one") + line(2, id="two"))
    words = ["tail", "--kafka", kafka.bootstrap, "--from-beginning", "--count", "2", it.transactions]
    records = [json.loads(each) for each in ctl(*words, "--json").stdout.splitlines()]
    assert {record["headers"]["ce_id"] for record in records} == {"one", "two"}
    assert {record["value"]["transaction"]["operations"][0]["data"]["n"] for record in records} == {1, 2}
    text = ctl(*words).stdout
    assert "create_user id=one key=u-1" in text and len(text.splitlines()) == 2
    following = subprocess.Popen([INGESTCTL, *words[:3], "--count", "1", it.transactions], stdout=subprocess.PIPE, text=True)
    time.sleep(2)  # from now on
    ctl("publish", server=it, input=line(3, id="three"))
    assert "id=three" in following.communicate(timeout=30)[0]
    ctl("tail", "--kafka", kafka.bootstrap, "no-such-topic", expect=NOT_FOUND)


def test_dead_letters(server, kafka, client):
    it = server(kafka, start=False)
    kafka.create_topic(it.transactions)
    it.start()
    ctl("publish", "--ack", "published", server=it, input=line(1, id="first"))
    kafka.alter_topic(it.transactions, {"max.message.bytes": 2000})
    for number in range(3):
        client(it).publish(transaction("create_user", id=f"large-{number}", data=os.urandom(4000)))
    wait_for(lambda: len(ctl("dead", "list", "--json", server=it).stdout.splitlines()) == 3, "three dead letters", 60)
    letters = [json.loads(each) for each in ctl("dead", "list", "--json", "--route", "transactions", server=it).stdout.splitlines()]
    assert [letter["id"] for letter in letters] == ["large-0", "large-1", "large-2"]
    assert letters[0]["error"] == "MSG_SIZE_TOO_LARGE"
    assert len(ctl("dead", "list", "--limit", "2", server=it).stdout.splitlines()) == 3  # with the heading
    sequence = letters[0]["sequence"]
    shown = ctl_json("dead", "show", "transactions", sequence, server=it)
    assert shown["event"]["id"] == "large-0" and shown["deadLetter"]["attempts"] >= 1
    assert "event     {" in ctl("dead", "show", "transactions", sequence, server=it).stdout
    ctl("dead", "show", "transactions", "99999", server=it, expect=NOT_FOUND)
    ctl("dead", "replay", "transactions", server=it, expect=USAGE)

    assert ctl_json("dead", "purge", "transactions", letters[2]["sequence"], server=it)["purged"] == 1
    kafka.alter_topic(it.transactions, {"max.message.bytes": 1000000})
    assert ctl_json("dead", "replay", "transactions", sequence, server=it)["replayed"] == 1
    assert ctl_json("dead", "replay", "transactions", "--all", server=it)["remaining"] == 0
    assert (lambda done: done.stdout + done.stderr)(ctl("dead", "list", "--json", server=it)) == ""
    assert "no dead letter" in ctl("dead", "replay", "transactions", sequence, server=it, expect=REFUSED).stderr
    assert published(it, kafka, 3) == Counter(["first", "large-0", "large-1"])


class Returning(admin_service_pb2_grpc.AdminServiceServicer):
    """Each letter that is replayed is a dead letter again at once; the third call of them fails."""

    def __init__(self):
        self.calls = 0

    def ReplayDeadLetters(self, request, context):
        self.calls += 1
        if self.calls == 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return admin_service_pb2.ReplayDeadLettersResponse(replayed=len(request.sequences) or 2, remaining=2)

    def PurgeDeadLetters(self, request, context):
        error = admin_service_pb2.DeadLetterResult(sequence=7, error=status_pb2.Status(code=9, message="not passed yet"))
        return admin_service_pb2.PurgeDeadLettersResponse(purged=1, refused=1, remaining=9, results=[error])


def test_dead_letters_that_come_back():
    served = grpc.server(ThreadPoolExecutor(2))
    letters = Returning()
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(letters, served)
    target = f"127.0.0.1:{served.add_insecure_port('127.0.0.1:0')}"
    served.start()
    try:
        words = ["transactions", "--json", "--server", target]
        assert json.loads(ctl("dead", "replay", "--all", *words).stdout)["replayed"] == 4 and letters.calls == 2
        done = ctl("dead", "replay", *words[1:], "transactions", *(str(each) for each in range(1500)), expect=UNAVAILABLE)
        assert "gone" in done.stderr
        letters.calls = 1  # what was done before an error is told
        done = ctl("dead", "replay", *words[1:], "transactions", *(str(each) for each in range(1500)), expect=UNAVAILABLE)
        assert json.loads(done.stdout)["replayed"] == 1000 and "gone" in done.stderr
        refused = ctl("dead", "purge", "--all", *words, expect=REFUSED)
        assert json.loads(refused.stdout) == {"purged": 1, "refused": 1, "remaining": 9} and "7: not passed yet" in refused.stderr
        assert "older server" in ctl("backlog", "--server", target, expect=PROTOCOL).stderr
    finally:
        served.stop(0).wait()


def test_bench(server, kafka):
    it = server(kafka)
    closed = ctl_json("bench", "--events", "3000", "--concurrency", "100", server=it)
    assert closed["events"] == 3000 and closed["failed"] == 0
    assert 0 < closed["p50_us"] <= closed["p999_us"] <= closed["max_us"]
    began = time.monotonic()
    open_loop = ctl_json("bench", "--events", "1000", "--rate", "500", server=it)
    assert open_loop["events"] == 1000 and time.monotonic() - began > 1.8
    assert it.metrics().total("ingest_events_accepted_total") == 4000
    for_people = ctl("bench", "--events", "10", server=it).stdout
    assert "p99.9" in for_people and sum(int(count) for count in re.findall(r"< .* ms +(\d+) #", for_people)) == 10
    assert "no_such" in ctl("bench", "--events", "5", "--operation", "no_such", server=it, expect=REFUSED).stderr
    ctl("bench", "--rate", "1", "--concurrency", "1", expect=USAGE)


def test_bench_counts_from_when_an_event_was_meant_to_be_sent(scripted):
    """A server that stands still for half a second is seen by all that were due meanwhile; in a closed loop by a few."""
    began = time.monotonic()

    def answer(event):
        nonlocal began
        began = began or time.monotonic()
        while 0.5 < time.monotonic() - began < 1.0:
            time.sleep(0.01)
        return ok(event)

    it = scripted(answer)
    began = 0.0
    open_loop = ctl_json("bench", "--rate", "500", "--events", "750", server=it)
    assert open_loop["max_us"] > 450_000 and open_loop["p90_us"] > 250_000 and open_loop["p50_us"] < 100_000, open_loop
    began = 0.0
    closed = ctl_json("bench", "--concurrency", "1", "--events", "2000", server=it)
    assert closed["max_us"] > 450_000 and closed["p90_us"] < 100_000, closed
    began = time.monotonic() - 10  # no stall of the server's; now the sender is late itself
    words = [INGESTCTL, "bench", "--rate", "500", "--events", "750", "--json", "--server", it.target]
    late = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    late.send_signal(signal.SIGSTOP)
    time.sleep(0.6)
    late.send_signal(signal.SIGCONT)
    result = json.loads(late.communicate(timeout=30)[0])
    assert result["max_us"] > 450_000 and result["p90_us"] > 200_000, result


# ---- help


def commands() -> list[list[str]]:
    overview = ctl("--help").stdout.split("\n\n")[1]
    return [re.match(r"  (\S+(?: \S+)?)  ", each)[1].split() for each in overview.splitlines()]


def test_help_manual_and_completion(tmp_path):
    assert len(commands()) == 19
    manual = tmp_path / "ingestctl.1"
    manual.write_text(ctl("--man").stdout)
    checked = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(manual))
    assert checked.stderr == ""
    for words in commands():
        text = ctl(*words, "--help").stdout
        assert text.startswith("usage: ingestctl " + " ".join(words)) and "exit codes" in text and "example" in text
    script = ctl("completion", "bash").stdout
    (tmp_path / "completion").write_text(script)
    asked = "COMP_WORDS=(ingestctl dead re); COMP_CWORD=2; _ingestctl; echo ${COMPREPLY[@]};" + (
        "COMP_WORDS=(ingestctl publish --ra); COMP_CWORD=2; _ingestctl; echo ${COMPREPLY[@]};"
        "COMP_WORDS=(ingestctl ''); COMP_CWORD=1; _ingestctl; echo ${COMPREPLY[@]}"
    )
    answers = run("bash", "-c", f"compopt() {{ :; }}; source {tmp_path}/completion; {asked}").stdout.splitlines()
    assert answers[0] == "replay" and answers[1] == "--rate="
    assert {"publish", "dead", "store", "backlog"} <= set(answers[2].split())
    assert re.findall(r"^  dead (\S+)", ctl("dead", "--help").stdout, re.MULTILINE) == ["list", "show", "replay", "purge"]
    asked = ctl("dead", expect=USAGE).stderr
    assert 'which command of "dead"' in asked and "store verify" not in asked
    with open("/dev/full", "w") as full:
        assert subprocess.run([INGESTCTL, "--help"], stdout=full, stderr=subprocess.PIPE).returncode == IO_ERROR
    for words, why in ((["frobnicate"], "no command"), (["publish", "--frobnicate"], "unrecognized"), (["status"], "takes ID")):
        assert why in ctl(*words, expect=USAGE).stderr
