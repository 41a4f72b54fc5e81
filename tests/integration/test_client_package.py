"""The publishing library as others get it: installed, then used from C and C++, by pkg-config and by CMake, shared and
static, each program run against a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from harness.paths import BUILD, ROOT
from harness.process import wait_for
from harness.tools import run

LANGUAGES = {"c": ("cc", "-std=c99"), "cpp": ("c++", "-std=c++11")}
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C CXX)
find_package(ingest 0.1 REQUIRED)
foreach(LANGUAGE c cpp)
  add_executable(shared-${LANGUAGE} hello.${LANGUAGE})
  target_link_libraries(shared-${LANGUAGE} ingest::ingest)
  add_executable(static-${LANGUAGE} hello.${LANGUAGE})
  target_link_libraries(static-${LANGUAGE} ingest::ingest-static)
endforeach()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Moved after it was installed: nothing in it may know where it is."""
    folder = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", str(BUILD / "release"), "--component", "client", "--prefix", str(folder / "first"))
    return (folder / "first").rename(folder / "ingest")


@pytest.fixture(scope="module")
def library(installed):
    [found] = installed.glob("lib*/**/libingest.so")
    return found


def declared(installed):
    text = "".join(header.read_text() for header in (installed / "include/ingest").glob("*.h"))
    return set(re.findall(r"^INGEST_API [^;(]*?(ingest_\w+)\(", text, re.M))


def defined(file, *options):
    lines = run("nm", "--defined-only", *options, str(file)).stdout.splitlines()
    return {words[-1] for line in lines if len(words := line.split()) == 3}


def test_what_is_exported(installed, library):
    names = declared(installed)
    assert len(names) > 25
    assert defined(library, "--dynamic") == names
    assert defined(library.with_name("libingest.a"), "--extern-only") == names


def test_what_is_needed(library):
    needed = set(re.findall(r"^\s*(\S+)\.so", run("ldd", str(library)).stdout, re.M))
    assert {"libgrpc", "libprotobuf-c"} <= needed
    assert not {name for name in needed if re.search("rocksdb|rdkafka|microhttpd|yaml", name)}


def publishes(program, scripted, library):
    it = scripted()
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    ended = subprocess.run([program, it.target], env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0 and "ok" in ended.stdout, ended
    assert [event.transaction.operations[0].name for event in it.events] == ["create_user"]
    linked = "libingest.so" in run("ldd", str(program)).stdout
    assert linked == ("shared" in program.name)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["shared", "static"])
def test_by_pkg_config(installed, library, scripted, tmp_path, language, kind):
    def flags(*options):
        path = {**os.environ, "PKG_CONFIG_PATH": str(library.parent / "pkgconfig")}
        found = subprocess.run(["pkg-config", *options, "ingest"], env=path, capture_output=True, text=True, check=True)
        return found.stdout.split()

    libs = flags("--libs") if kind == "shared" else flags("--libs", "--static")
    if kind == "static":
        libs = ["-l:libingest.a" if flag == "-lingest" else flag for flag in libs]
    program, source = tmp_path / kind, tmp_path / f"hello.{language}"
    shutil.copy(ROOT / "client/examples/hello.c", source)
    run(*LANGUAGES[language], *STRICT, *flags("--cflags"), str(source), "-o", str(program), *libs)
    publishes(program, scripted, library)


def test_by_cmake(installed, library, scripted, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    for language in LANGUAGES:
        shutil.copy(ROOT / "client/examples/hello.c", tmp_path / f"hello.{language}")
    run("cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", str(tmp_path / "build"))
    for language in LANGUAGES:
        publishes(tmp_path / "build" / f"shared-{language}", scripted, library)
        publishes(tmp_path / "build" / f"static-{language}", scripted, library)


def test_the_examples(scripted, tmp_path):
    """signups: a line of input is an event with two operations, checked against the catalogue and answered."""
    it = scripted()
    catalogue = ROOT / "server/default_catalogue.tsv"
    program = BUILD / "release/example-signups"
    made = subprocess.Popen([program, it.target, catalogue], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    made.stdin.write("u-1 Ada Lovelace\nu-2 Grace Hopper\n")
    made.stdin.flush()
    wait_for(lambda: len(it.events) == 2, "the events")
    out, _ = made.communicate("u-3 \n", timeout=30)
    assert made.returncode == 0 and len(re.findall("signed up, event", out)) == 2
    first = it.events[0]
    assert first.key == "u-1" and [each.name for each in first.transaction.operations] == ["create_user", "add_user_to_org"]
    assert first.transaction.operations[0].data["name"] == "Ada Lovelace"
