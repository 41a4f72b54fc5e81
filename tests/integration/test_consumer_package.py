"""The consuming library as others get it: installed, then used by pkg-config and by CMake, shared and static, each
program run against a Kafka."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess

import pytest
from confluent_kafka import Producer

from harness.client import transaction
from harness.paths import BUILD, ROOT
from harness.tools import run
from test_client_package import LANGUAGES, STRICT, defined

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES C)
find_package(ingest-consumer 0.1 REQUIRED)
add_executable(shared consume.c)
target_link_libraries(shared ingest::consumer)
add_executable(static consume.c)
target_link_libraries(static ingest::consumer-static)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Moved after it was installed: nothing in it may know where it is."""
    folder = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", str(BUILD / "release"), "--component", "consumer", "--prefix", str(folder / "first"))
    return (folder / "first").rename(folder / "ingest")


@pytest.fixture(scope="module")
def library(installed):
    [found] = installed.glob("lib*/**/libingest-consumer.so")
    return found


def test_what_is_exported_and_needed(installed, library):
    header = (installed / "include/ingest/consumer.h").read_text()
    names = set(re.findall(r"^INGEST_API [^;(]*?(ingest_\w+)\(", header, re.M)) | {"ingest_status_text"}
    assert len(names) == 16
    assert defined(library, "--dynamic") == names
    assert defined(library.with_name("libingest-consumer.a"), "--extern-only") == names
    needed = set(re.findall(r"^\s*(\S+)\.so", run("ldd", str(library)).stdout, re.M))
    assert {"librdkafka", "librocksdb"} <= needed and not {name for name in needed if "grpc" in name}


def consumes(program, kafka, topic, library, folder):
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, transaction("block_user", id="b-1", key="u-1").SerializeToString(), key=b"u-1")
    producer.flush(10)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    argv = [str(program), kafka.bootstrap, f"{topic}-{program.name}", topic, str(folder / f"data-{program.name}")]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout.readline() == "tests/b-1/0/index/user: block_user of u-1: null\n"
            made.send_signal(signal.SIGTERM)
            assert made.wait(30) == 0
        finally:
            made.kill()


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_by_pkg_config(installed, library, kafka, topic, tmp_path, kind):
    path = {**os.environ, "PKG_CONFIG_PATH": str(library.parent / "pkgconfig")}
    options = ["--cflags", "--libs", *(["--static"] if kind == "static" else [])]
    found = subprocess.run(["pkg-config", *options, "ingest-consumer"], env=path, capture_output=True, text=True, check=True)
    flags = found.stdout.split()
    if kind == "static":
        flags = ["-l:libingest-consumer.a" if flag == "-lingest-consumer" else flag for flag in flags]
    program, source = tmp_path / kind, ROOT / "client/examples/consume.c"
    run(LANGUAGES["c"][0], "-std=c11", *STRICT, str(source), "-o", str(program), *flags)
    consumes(program, kafka, topic, library, tmp_path)


def test_by_cmake(installed, library, kafka, topic, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    shutil.copy(ROOT / "client/examples/consume.c", tmp_path)
    run("cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", str(tmp_path / "build"))
    for kind in ("shared", "static"):
        consumes(tmp_path / "build" / kind, kafka, topic, library, tmp_path)
