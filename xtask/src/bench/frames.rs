//! The frames that the benchmark's programs start from. They write addresses, ports, TTL and
//! checksums themselves; the rest is here.

/// TCP's ACK bit.
const ACK: u8 = 0x10;
/// TCP's SYN bit.
const SYN: u8 = 0x02;

/// A frame of TCP without payload.
pub(super) fn tcp(family: u8, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match family {
        4 => frame.extend_from_slice(&ipv4()),
        _ => frame.extend_from_slice(&ipv6()),
    }
    let mut header = [0u8; 20];
    header[12] = 5 << 4;
    header[13] = flags;
    frame.extend_from_slice(&header);
    frame
}

/// A frame of a live connection.
pub(super) fn ack(family: u8) -> Vec<u8> {
    tcp(family, ACK)
}

/// A frame that opens a connection.
pub(super) fn syn(family: u8) -> Vec<u8> {
    tcp(family, SYN)
}

fn ipv4() -> [u8; 22] {
    let mut header = [0u8; 22];
    header[..2].copy_from_slice(&[0x08, 0x00]);
    header[2] = 0x45;
    header[5] = 40;
    header[10] = 64;
    header[11] = 6;
    header
}

fn ipv6() -> [u8; 42] {
    let mut header = [0u8; 42];
    header[..2].copy_from_slice(&[0x86, 0xdd]);
    header[2] = 0x60;
    header[7] = 20;
    header[8] = 6;
    header[9] = 64;
    header
}
