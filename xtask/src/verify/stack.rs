//! How much stack a program takes at its deepest, from what the verifier says of each function.
//!
//! The kernel refuses a chain of calls of more than 512 bytes, but does not say how long the
//! longest one is. The log has the depth of every function, in the order of the code; who calls
//! whom is in the instructions.

use std::collections::{BTreeSet, HashMap};

use aya_obj::generated::bpf_insn;

/// What the kernel allows.
pub(super) const LIMIT: u32 = 512;

/// How a kernel counts a function's part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    /// Since 6.9, where programs are compiled: to 16 bytes.
    Compiled,
    /// Before: to 32 bytes, and at least that.
    Interpreter,
}

impl Rounding {
    fn round(self, depth: u32) -> u32 {
        match self {
            Self::Compiled => depth.next_multiple_of(16),
            Self::Interpreter => depth.max(1).next_multiple_of(32),
        }
    }
}

const CALL: u8 = 0x85;
const LOAD_64: u8 = 0x18;
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNCTION: u8 = 4;

/// The chain of calls that takes most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Bytes of all of them.
    pub bytes: u32,
    /// First instruction and bytes of each, from the program inwards.
    pub functions: Vec<(usize, u32)>,
}

/// The deepest chain of calls; `depths` is the kernel's `112+0+64`.
///
/// `None` if the number of functions in the two is not the same.
pub(super) fn deepest(
    instructions: &[bpf_insn],
    depths: &str,
    rounding: Rounding,
) -> Option<Chain> {
    let depth = |depth: &str| depth.parse().ok().map(|depth| rounding.round(depth));
    let depths: Vec<u32> = depths.split('+').map(depth).collect::<Option<_>>()?;
    let starts: BTreeSet<usize> =
        calls(instructions).map(|(_, target)| target).chain([0]).collect();
    if starts.len() != depths.len() {
        return None;
    }
    let starts: Vec<usize> = starts.into_iter().collect();
    let function = |at: usize| starts.partition_point(|start| *start <= at) - 1;
    let mut callees: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, target) in calls(instructions) {
        callees.entry(function(at)).or_default().push(function(target));
    }
    let functions: Vec<_> = starts.into_iter().zip(depths.iter().copied()).collect();
    Some(chain(0, &functions, &callees, &mut HashMap::new()))
}

/// Calls of functions, and functions handed to the kernel: where, and which instruction they go to.
fn calls(instructions: &[bpf_insn]) -> impl Iterator<Item = (usize, usize)> {
    instructions.iter().enumerate().filter_map(|(at, instruction)| {
        let calls = matches!(
            (instruction.code, instruction.src_reg()),
            (CALL, PSEUDO_CALL) | (LOAD_64, PSEUDO_FUNCTION)
        );
        let offset = isize::try_from(instruction.imm).ok()?;
        calls.then(|| (at + 1).checked_add_signed(offset)).flatten().map(|target| (at, target))
    })
}

/// The verifier has refused recursion, so this ends.
fn chain(
    function: usize,
    functions: &[(usize, u32)],
    callees: &HashMap<usize, Vec<usize>>,
    known: &mut HashMap<usize, Chain>,
) -> Chain {
    if let Some(chain) = known.get(&function) {
        return chain.clone();
    }
    let called = callees.get(&function).into_iter().flatten();
    let below = called.map(|callee| chain(*callee, functions, callees, known));
    let mut deepest = below.max_by_key(|chain| chain.bytes).unwrap_or_default();
    deepest.bytes += functions[function].1;
    deepest.functions.insert(0, functions[function]);
    known.insert(function, deepest.clone());
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: u8 = 0x95;

    fn instruction(code: u8, source: u8, imm: i32) -> bpf_insn {
        let mut instruction =
            bpf_insn { code, _bitfield_align_1: [], _bitfield_1: Default::default(), off: 0, imm };
        instruction.set_src_reg(source);
        instruction
    }

    /// 0 calls 1 and 2, 1 calls 2.
    fn program() -> Vec<bpf_insn> {
        vec![
            instruction(CALL, PSEUDO_CALL, 2), // 0: to 3
            instruction(CALL, PSEUDO_CALL, 3), // 1: to 5
            instruction(EXIT, 0, 0),
            instruction(CALL, PSEUDO_CALL, 1), // 3: to 5
            instruction(EXIT, 0, 0),
            instruction(CALL, 0, 5), // 5: a helper
            instruction(EXIT, 0, 0),
        ]
    }

    #[test]
    fn the_longest_chain_counts() {
        let deepest = |depths, rounding| Some(deepest(&program(), depths, rounding)?.bytes);
        assert_eq!(deepest("100+40+8", Rounding::Compiled), Some(112 + 48 + 16));
        assert_eq!(deepest("100+40+8", Rounding::Interpreter), Some(128 + 64 + 32));
        assert_eq!(deepest("100+0+200", Rounding::Compiled), Some(112 + 208));
        assert_eq!(deepest("100+0+200", Rounding::Interpreter), Some(128 + 32 + 224));
    }

    #[test]
    fn a_callback_is_a_function_too() {
        let program = [
            instruction(LOAD_64, PSEUDO_FUNCTION, 2),
            instruction(0, 0, 0),
            instruction(EXIT, 0, 0),
            instruction(EXIT, 0, 0),
        ];
        let chain = deepest(&program, "16+32", Rounding::Compiled).unwrap();
        assert_eq!(chain, Chain { bytes: 48, functions: vec![(0, 16), (3, 32)] });
    }

    #[test]
    fn a_log_of_another_program_is_noticed() {
        assert_eq!(deepest(&program(), "100+40", Rounding::Compiled), None);
    }
}
