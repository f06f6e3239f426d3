#!/usr/bin/env python3
"""Requests over unix sockets, for scripts/bench.

rate PATH CONNECTIONS NAME=SOCKET…: rows of rate, median and p99 of GET, the engines in turn, each connection kept alive.
follow COUNT SOCKET PID: opens COUNT following log streams and prints a row of the process's resident memory.
names RATE SECONDS NAME…: a row of look-ups over UDP at 127.0.0.11, so many a second.
"""
import http.client
import json
import os
import socket
import struct
import sys
import threading
import time


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(path, target, seconds):
    """Times of the answers that came within so many seconds."""
    connection, times = Connection(path), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or not body:
            sys.exit(f"{path}: {answer.status} {body[:200]}")
        times.append(time.monotonic() - begin)
    return times


def round_of(path, target, connections, seconds):
    """One round, each connection in a process of its own: Python's threads would wait for each other."""
    children, times = [], []
    for _ in range(connections):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            with os.fdopen(theirs, "w") as out:
                json.dump(ask(path, target, seconds), out)
            os._exit(0)
        os.close(theirs)
        children.append((pid, ours))
    for pid, ours in children:
        with os.fdopen(ours) as given:
            times += json.load(given)
        if os.waitpid(pid, 0)[1]:
            sys.exit(f"{path}: a connection failed")
    return times


def rate(target, counts, engines, rounds=4, seconds=2.0):
    for connections in counts:
        found = {name: [] for name, _ in engines}
        for path in (path for _, path in engines):
            ask(path, target, 0.2)
        for _ in range(rounds):
            for name, path in engines:
                found[name] += round_of(path, target, connections, seconds)
        first = len(found[engines[-1][0]]) / (rounds * seconds)
        for name, _ in engines:
            times = sorted(found[name])
            each = len(times) / (rounds * seconds)
            median, late = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
            print(
                f"| {name} | {connections} | {each:.0f} | {median * 1e3:.1f} | {late * 1e3:.1f} "
                f"| {len(times)} | {each / first:.1f} |"
            )


def follow(count, path, pid):
    listed = Connection(path)
    listed.request("GET", "/containers/json")
    ids = [container["Id"] for container in json.loads(listed.getresponse().read())][:count]
    streams = []
    for name in ids:
        connection = Connection(path)
        connection.request("GET", f"/containers/{name}/logs?follow=1&stdout=1&stderr=1")
        streams.append(connection.getresponse())
    # Each has given something, so that all of them run.
    threads = [threading.Thread(target=stream.read1, args=(1,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(f"/proc/{pid}/status") as status:
        resident = next(line.split()[1] for line in status if line.startswith("VmRSS:"))
    print(f"| with {len(streams)} log followers | {resident} |")


def names(rate, seconds, wanted):
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asked.connect(("127.0.0.11", 53))
    asked.settimeout(5)
    times, begin = [], time.monotonic()
    for number in range(int(rate * seconds)):
        wait = begin + number / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        name = wanted[number % len(wanted)].encode()
        query = struct.pack(">6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0)
        query += bytes([len(name)]) + name + b"\0" + struct.pack(">2H", 1, 1)
        sent = time.monotonic()
        asked.send(query)
        answer = asked.recv(512)
        times.append(time.monotonic() - sent)
        if answer[:2] != query[:2] or answer[3] & 15 or answer[6:8] != b"\0\1":
            sys.exit(f"{name}: {answer!r}")
    whole = time.monotonic() - begin
    times.sort()
    median, late = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"| {rate:.0f} | {len(times) / whole:.0f} | {median * 1e3:.2f} | {late * 1e3:.2f} | {len(times)} |")


if sys.argv[1] == "names":
    names(float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
elif sys.argv[1] == "rate":
    pairs = [pair.split("=", 1) for pair in sys.argv[4:]]
    rate(sys.argv[2], [int(count) for count in sys.argv[3].split(",")], pairs)
else:
    follow(int(sys.argv[2]), sys.argv[3], sys.argv[4])
