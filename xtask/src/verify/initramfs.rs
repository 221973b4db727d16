//! An archive that the kernel unpacks as its first file system (cpio, format "newc").

use std::io::Write as _;

/// The last entry of every archive.
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive of files, all of them executable, and of empty folders.
pub(super) fn archive(folders: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, folder) in (1..).zip(folders) {
        entry(&mut out, number, folder, DIRECTORY, &[]);
    }
    for (number, (name, bytes)) in (1 + folders.len() as u32..).zip(files) {
        entry(&mut out, number, name, PROGRAM, bytes);
    }
    entry(&mut out, 0, TRAILER, 0, &[]);
    out
}

fn entry(out: &mut Vec<u8>, number: u32, name: &str, mode: u32, bytes: &[u8]) {
    let (size, name_size) = (bytes.len() as u32, name.len() as u32 + 1);
    // inode, mode, uid, gid, links, time, size, device and special device, name, checksum
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let header =
        fields.iter().fold("070701".to_owned(), |text, field| text + &format!("{field:08x}"));
    write!(out, "{header}{name}\0").expect("a vector takes everything");
    pad(out);
    out.extend_from_slice(bytes);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_named() {
        let archive = archive(&["proc"], &[("init", b"#!"), ("data", b"12345")]);
        assert_eq!(archive.len() % 4, 0);
        // 110 bytes of header, the name, padding.
        assert_eq!(&archive[..6], b"070701");
        assert_eq!(&archive[110..115], b"proc\0");
        assert_eq!(&archive[116..122], b"070701");
        let at = |needle: &[u8]| archive.windows(needle.len()).position(|part| part == needle);
        assert_eq!(at(b"#!").unwrap() % 4, 0);
        assert_eq!(at(b"12345").unwrap() % 4, 0);
        assert!(at(b"TRAILER!!!\0").is_some());
    }
}
