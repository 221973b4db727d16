//! Which frontends want the loads of their backends to be known: nobody counts where none does.

use foldhash::HashSet;
use nodeport_common::abi::{Addr4, Addr6, FRONTEND_LEAST, Frontend, FrontendKey};

use super::Op;

/// Those in the maps.
#[derive(Debug, Default)]
pub(super) struct Least {
    of4: HashSet<FrontendKey<Addr4>>,
    of6: HashSet<FrontendKey<Addr6>>,
}

impl Least {
    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !self.of4.is_empty() || !self.of6.is_empty()
    }

    /// Heeds a frontend that was made, replaced or removed.
    pub(super) fn heed(&mut self, op: &Op) {
        match op {
            Op::PutFrontend4(key, value) => self.put4(key, value),
            Op::PutFrontend6(key, value) => self.put6(key, value),
            Op::RemoveFrontend4(key) => drop(self.of4.remove(key)),
            Op::RemoveFrontend6(key) => drop(self.of6.remove(key)),
            _ => {}
        }
    }

    pub(super) fn put4(&mut self, key: &FrontendKey<Addr4>, value: &Frontend) {
        put(&mut self.of4, *key, value);
    }

    pub(super) fn put6(&mut self, key: &FrontendKey<Addr6>, value: &Frontend) {
        put(&mut self.of6, *key, value);
    }
}

fn put<K: Eq + std::hash::Hash>(keys: &mut HashSet<K>, key: K, value: &Frontend) {
    if value.flags & FRONTEND_LEAST == 0 {
        keys.remove(&key);
    } else {
        keys.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<A: Default>(port: u16) -> FrontendKey<A> {
        FrontendKey { port, ..FrontendKey::default() }
    }

    #[test]
    fn loads_are_wanted_as_long_as_a_frontend_wants_them() {
        let plain = Frontend::default();
        let wants = Frontend { flags: FRONTEND_LEAST, ..plain };
        let mut least = Least::default();
        for (op, expected) in [
            (Op::PutFrontend4(key(1), plain), false),
            (Op::PutFrontend4(key(1), wants), true),
            (Op::PutFrontend6(key(1), wants), true),
            (Op::PutFrontend4(key(1), wants), true),
            (Op::RemoveFrontend6(key(2)), true),
            (Op::PutFrontend4(key(1), plain), true),
            (Op::RemoveFrontend6(key(1)), false),
            (Op::RemoveFrontend6(key(1)), false),
            (Op::PutFrontend4(key(3), wants), true),
            (Op::Barrier, true),
            (Op::RemoveFrontend4(key(3)), false),
        ] {
            least.heed(&op);
            assert_eq!(least.any(), expected, "{op:?}");
        }
    }
}
