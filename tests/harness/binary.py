"""What a built nginx or module has: its command tables, read from the ELF.

The structures are ngx_module_t and ngx_command_t of 64-bit nginx, which have
not changed since 1.11.5 (their layout is part of the modules' interface).
"""

import struct

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

MODULE_COMMANDS = 64        # offsetof(ngx_module_t, commands)
COMMAND = struct.Struct("<QQQQQQQ")


class Binary:
    def __init__(self, path):
        with open(path, "rb") as file:
            elf = ELFFile(file)
            assert elf.elfclass == 64 and elf.little_endian
            self._segments = [
                (segment["p_vaddr"], segment.data())
                for segment in elf.iter_segments("PT_LOAD")]
            self._symbols, self._pointers = {}, {}
            for section in elf.iter_sections():
                if section["sh_type"] in ("SHT_DYNSYM", "SHT_SYMTAB"):
                    self._symbols.update(
                        (symbol.name, symbol["st_value"])
                        for symbol in section.iter_symbols()
                        if symbol["st_value"])
            for section in elf.iter_sections():
                if (isinstance(section, RelocationSection)
                        and section.is_RELA()):
                    self._read_relocations(elf, section)

    def _read_relocations(self, elf, section):
        symbols = elf.get_section(section["sh_link"])
        for item in section.iter_relocations():
            value = item["r_addend"]
            if item["r_info_sym"]:
                value += symbols.get_symbol(item["r_info_sym"])["st_value"]
            self._pointers[item["r_offset"]] = value

    def _bytes(self, address):
        for start, data in self._segments:
            if start <= address < start + len(data):
                return data[address - start:]
        raise AssertionError(f"nothing at {address:#x}")

    def _pointer(self, address):
        if address in self._pointers:
            return self._pointers[address]
        return struct.unpack_from("<Q", self._bytes(address))[0]

    def commands(self, module):
        """{directive: its type, the contexts and argument counts}."""
        found = {}
        address = self._pointer(self._symbols[module] + MODULE_COMMANDS)
        while True:
            length, _, kind = COMMAND.unpack_from(self._bytes(address))[:3]
            if length == 0:
                return found
            name = self._bytes(self._pointer(address + 8))[:length]
            found[name.decode()] = kind
            address += COMMAND.size
