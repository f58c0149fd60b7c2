#!/usr/bin/env python3
"""Makes envoy.binpb: the part of the Envoy API that files.txt names, as one FileDescriptorSet.

usage: make.py SOURCE OUTPUT

SOURCE is src/generated/types.bin of the crates.io package envoy-types (README.md says how to fetch it). The work is done
on the wire format, so nothing but Python is needed, and options that belong to extensions (validation rules, "sensitive"
and "deprecated" marks of fields) are kept as they are. Taken out, because neither the generator nor JSON needs them:
source positions and comments, file options, and message options other than map_entry and deprecated.
"""

import pathlib
import re
import sys

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

# Field numbers of google/protobuf/descriptor.proto.
FILE_NAME, FILE_DEPENDENCY, FILE_MESSAGE, FILE_OPTIONS, FILE_SOURCE_CODE = 1, 3, 4, 8, 9
MESSAGE_NAME, MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_OPTIONS = 1, 2, 3, 7
OPTION_DEPRECATED, OPTION_MAP_ENTRY = 3, 7


def read_varint(buffer, at):
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def write_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_fields(buffer):
    """The (number, wire type, value) triples of one encoded message, in their order."""
    at = 0
    while at < len(buffer):
        key, at = read_varint(buffer, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = read_varint(buffer, at)
        else:
            if wire == LENGTH:
                length, at = read_varint(buffer, at)
            else:
                length = {FIXED64: 8, FIXED32: 4}[wire]
            value = buffer[at : at + length]
            at += length
        yield number, wire, value


def write_field(number, wire, value):
    key = write_varint(number << 3 | wire)
    if wire == VARINT:
        return key + write_varint(value)
    return key + (write_varint(len(value)) if wire == LENGTH else b"") + value


def texts(message, number):
    return [value.decode() for field, _, value in read_fields(message) if field == number]


def strip_message(message):
    out = b""
    for number, wire, value in read_fields(message):
        if number == MESSAGE_NESTED:
            value = strip_message(value)
        elif number == MESSAGE_OPTIONS:
            kept = [f for f in read_fields(value) if f[0] in (OPTION_DEPRECATED, OPTION_MAP_ENTRY)]
            if not kept:
                continue
            value = b"".join(write_field(*f) for f in kept)
        out += write_field(number, wire, value)
    return out


def strip_file(file):
    out = b""
    for number, wire, value in read_fields(file):
        if number in (FILE_OPTIONS, FILE_SOURCE_CODE):
            continue
        if number == FILE_MESSAGE:
            value = strip_message(value)
        out += write_field(number, wire, value)
    return out


def typed_struct(package):
    """typed_struct.proto of a package. The source lacks it, because no other file imports it; configuration names it.

    message TypedStruct { string type_url = 1; google.protobuf.Struct value = 2; }
    """

    def text(number, value):
        return write_field(number, LENGTH, value.encode())

    def field(name, json_name, number, kind, type_name):
        out = text(1, name) + write_field(3, VARINT, number) + write_field(4, VARINT, 1) + write_field(5, VARINT, kind)
        return out + (text(6, type_name) if type_name else b"") + text(10, json_name)

    string_kind, message_kind = 9, 11
    message = text(MESSAGE_NAME, "TypedStruct")
    message += write_field(MESSAGE_FIELD, LENGTH, field("type_url", "typeUrl", 1, string_kind, None))
    message += write_field(MESSAGE_FIELD, LENGTH, field("value", "value", 2, message_kind, ".google.protobuf.Struct"))
    file = text(FILE_NAME, package.replace(".", "/") + "/typed_struct.proto") + text(2, package)
    file += text(FILE_DEPENDENCY, "google/protobuf/struct.proto")
    return file + write_field(FILE_MESSAGE, LENGTH, message) + text(12, "proto3")


def parse_patterns(text):
    lines = [line.strip() for line in text.splitlines()]
    for line in lines:
        if not line or line.startswith("#"):
            continue
        parts = re.split(r"(\*\*|\*)", line.removeprefix("!"))
        expression = "".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts)
        yield line, not line.startswith("!"), re.compile(expression)


def select(names, patterns):
    chosen = set()
    for line, include, expression in patterns:
        matching = {name for name in names if expression.fullmatch(name)}
        if not matching:
            sys.exit(f"files.txt: `{line}` matches no file")
        chosen = chosen | matching if include else chosen - matching
    return chosen


def main():
    source, output = sys.argv[1:]
    encoded = [value for number, _, value in read_fields(pathlib.Path(source).read_bytes()) if number == 1]
    files = {texts(file, FILE_NAME)[0]: file for file in encoded}
    patterns = parse_patterns(pathlib.Path(__file__).with_name("files.txt").read_text())
    pending = sorted(select(files, patterns))
    wanted = set(pending)
    while pending:
        for dependency in texts(files[pending.pop()], FILE_DEPENDENCY):
            if dependency not in wanted:
                wanted.add(dependency)
                pending.append(dependency)
    # The source lists imports before importers; keeping its order keeps that property.
    kept = [strip_file(file) for name, file in files.items() if name in wanted]
    kept += [typed_struct(package) for package in ("udpa.type.v1", "xds.type.v3")]
    result = b"".join(write_field(1, LENGTH, file) for file in kept)
    pathlib.Path(output).write_bytes(result)
    print(f"{len(kept)} files, {len(result)} bytes")


if __name__ == "__main__":
    main()
