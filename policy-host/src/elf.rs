//! Whether a file is as long as a shared object says that it is, and for this kind of machine.
//!
//! The dynamic loader maps a library's segments without looking at the file's length; where a file was cut off, the
//! first touch of what is missing ends the process. So this is looked at before the loader gets to see the file, and so is
//! whether it is for this kind of machine, which the loader only says in riddles ("No such file"). Everything else that can be wrong with a library is for the loader to say.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a file is, as far as its headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It does not begin as a 64-bit ELF file does.
    NotElf,
    /// It is a 64-bit ELF file, though not for this kind of machine.
    OtherMachine,
    /// It ends before its segments do.
    Truncated,
    /// Nothing is wrong so far.
    Whole,
}

/// Where the fields lie that are read here, in bytes, from the ELF specification (version 1.2, 64-bit objects).
mod offset {
    pub(super) const CLASS: usize = 4;
    pub(super) const BYTE_ORDER: usize = 5;
    pub(super) const MACHINE: usize = 18;
    pub(super) const PROGRAM_HEADERS: usize = 32;
    pub(super) const PROGRAM_HEADER_SIZE: usize = 54;
    pub(super) const PROGRAM_HEADER_COUNT: usize = 56;
    pub(super) const SEGMENT_OFFSET: usize = 8;
    pub(super) const SEGMENT_FILE_SIZE: usize = 32;
}

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const CLASS_64: u8 = 2;
const BYTE_ORDER: u8 = if cfg!(target_endian = "big") { 2 } else { 1 };
/// This machine's number, where it is known.
const MACHINE: Option<u16> = if cfg!(target_arch = "x86_64") {
    Some(62)
} else if cfg!(target_arch = "aarch64") {
    Some(183)
} else if cfg!(target_arch = "riscv64") {
    Some(243)
} else {
    None
};

/// Reads the headers of a file.
pub(super) fn form(file: &File) -> io::Result<Form> {
    let length = file.metadata()?.len();
    let mut header = [0; FILE_HEADER];
    let begin = &mut header[..FILE_HEADER.min(usize::try_from(length).unwrap_or(FILE_HEADER))];
    file.read_exact_at(begin, 0)?;
    if !header.starts_with(b"\x7fELF") {
        return Ok(Form::NotElf);
    }
    if length < FILE_HEADER as u64 {
        return Ok(Form::Truncated);
    }
    if header[offset::CLASS] != CLASS_64 {
        return Ok(Form::NotElf);
    }
    let machine = u16_at(&header, offset::MACHINE);
    if header[offset::BYTE_ORDER] != BYTE_ORDER || MACHINE.is_some_and(|own| own != machine) {
        return Ok(Form::OtherMachine);
    }
    let table = u64_at(&header, offset::PROGRAM_HEADERS);
    let stride = u16_at(&header, offset::PROGRAM_HEADER_SIZE);
    for at in 0..u16_at(&header, offset::PROGRAM_HEADER_COUNT) {
        let start = u64::from(at) * u64::from(stride);
        let mut segment = [0; PROGRAM_HEADER];
        let whole = table.checked_add(start).filter(|start| {
            start
                .checked_add(PROGRAM_HEADER as u64)
                .is_some_and(|end| end <= length)
        });
        let Some(start) = whole else {
            return Ok(Form::Truncated);
        };
        file.read_exact_at(&mut segment, start)?;
        let (begin, size) = (
            u64_at(&segment, offset::SEGMENT_OFFSET),
            u64_at(&segment, offset::SEGMENT_FILE_SIZE),
        );
        if begin.checked_add(size).is_none_or(|end| end > length) {
            return Ok(Form::Truncated);
        }
    }
    Ok(Form::Whole)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}
