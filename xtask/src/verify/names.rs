//! Names of a program's functions, from the object's type information (BTF).

use std::collections::HashMap;

use aya_obj::Function;

/// Kinds of types as the format numbers them, and the bytes that follow the common 12: a fixed
/// number, and a number for each member.
const TAILS: [(usize, usize); 20] = [
    (0, 0),  // unknown
    (4, 0),  // int
    (0, 0),  // pointer
    (12, 0), // array
    (0, 12), // struct
    (0, 12), // union
    (0, 8),  // enum
    (0, 0),  // forward
    (0, 0),  // typedef
    (0, 0),  // volatile
    (0, 0),  // const
    (0, 0),  // restrict
    (0, 0),  // function
    (0, 8),  // prototype
    (4, 0),  // variable
    (0, 12), // section
    (0, 0),  // float
    (4, 0),  // declaration tag
    (0, 0),  // type tag
    (0, 12), // enum of 64 bits
];

/// Names of types by their number, 1 being the first.
pub(super) fn of_types(btf: &[u8]) -> Vec<String> {
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let string = |at: usize| {
        let bytes = btf.get(at..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let read = || -> Option<Vec<String>> {
        let header = word(4)?;
        let (mut at, end) = (header + word(8)?, header + word(8)? + word(12)?);
        let strings = header + word(16)?;
        let mut names = vec![String::new()];
        while at < end {
            let info = word(at + 4)?;
            let (fixed, each) = *TAILS.get(info >> 24 & 0x1f)?;
            names.push(string(strings + word(at)?)?);
            at += 12 + fixed + each * (info & 0xffff);
        }
        Some(names)
    };
    read().unwrap_or_default()
}

/// Names of the functions that a program consists of, by their first instruction.
pub(super) fn of_functions(function: &Function, types: &[String]) -> HashMap<usize, String> {
    let infos = function.func_info.func_info.iter();
    let name = |kind: u32| types.get(kind as usize).map(|name| readable(name));
    infos.filter_map(|info| Some((info.insn_off as usize, name(info.type_id)?))).collect()
}

/// The linker writes `any<core::V4>` as `any_3C_core_3A__3A_V4_3E_`; paths are left out here.
fn readable(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some(at) = rest.find('_') {
        let code = rest.get(at + 1..at + 3).filter(|_| rest.get(at + 3..at + 4) == Some("_"));
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                text += &rest[..at];
                text.push(byte.into());
                rest = &rest[at + 4..];
            }
            None => {
                text += &rest[..=at];
                rest = &rest[at + 1..];
            }
        }
    }
    without_paths(&(text + rest))
}

fn without_paths(name: &str) -> String {
    let words = name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    words.map(|word| word.rsplit("::").next().unwrap_or(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_readable() {
        let name = "any_3C_nodeport_common_3A__3A_core_3A__3A_V4_2C__20_nodeport_3A__3A_Skb_3E_";
        assert_eq!(readable(name), "any<V4, Skb>");
        assert_eq!(readable("segments_fit_3C__5B_u8_3B__20_4_5D__3E_"), "segments_fit<[u8; 4]>");
        assert_eq!(readable("nodeport_xdp"), "nodeport_xdp");
    }

    #[test]
    fn types_are_counted_over_their_tails() {
        let words =
            |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let mut types = words(&[1, 1 << 24, 4, 32]); // int "a"
        types.extend(words(&[3, 4 << 24 | 1, 4, 0, 0, 0])); // struct "b" with one member
        types.extend(words(&[5, 12 << 24, 1])); // function "c"
        let mut btf = words(&[0xeb9f | 1 << 16, 24, 0, types.len() as u32, types.len() as u32, 7]);
        btf.extend(types);
        btf.extend(b"\0a\0b\0c\0");
        assert_eq!(of_types(&btf), ["", "a", "b", "c"]);
        assert_eq!(of_types(&btf[..40]), [""; 0]);
    }
}
