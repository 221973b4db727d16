//! The seed of the choice of backends. Nodes choose alike if they have the same one, so in a
//! cluster it comes from what all of its nodes see.

/// Namespace of the Service whose UID stands for the cluster.
pub const CLUSTER_NAMESPACE: &str = "default";
/// Its name. Every cluster has it: the API server makes it.
pub const CLUSTER_SERVICE: &str = "kubernetes";

/// Where the seed comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedRule {
    /// From the command line.
    Given(u32),
    /// From the cluster.
    OfCluster {
        /// What the maps have from the cluster already: it counts where the cluster's UID is not
        /// visible now.
        before: Option<u32>,
        /// What counts where it never was.
        otherwise: u32,
    },
}

/// A seed, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The seed.
    pub value: u32,
    /// It came from the cluster, now or in an earlier run.
    pub of_cluster: bool,
}

impl SeedRule {
    /// The seed where the cluster's UID is this one, or none is visible.
    #[must_use]
    pub fn choose(self, uid: Option<&str>) -> Seed {
        match self {
            Self::Given(value) => Seed { value, of_cluster: false },
            Self::OfCluster { before, otherwise } => match uid.and_then(of_uid).or(before) {
                Some(value) => Seed { value, of_cluster: true },
                None => Seed { value: otherwise, of_cluster: false },
            },
        }
    }
}

/// The seed of a cluster with this UID: the 32-bit FNV-1a hash of the UID's 16 bytes, in the order
/// in which they are written. None if it is no UUID.
///
/// It must stay what it is: nodes of one cluster may run agents of different versions.
#[must_use]
pub fn of_uid(uid: &str) -> Option<u32> {
    Some(fnv1a(&uuid(uid)?))
}

/// The bytes of a UUID in its usual form, five groups of hexadecimal digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let digits = groups.concat();
    let fits = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| fits)?;
    Some(number.to_be_bytes())
}

fn fnv1a(bytes: &[u8]) -> u32 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "7d1a2b3c-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
    const CLUSTER: SeedRule = SeedRule::OfCluster { before: None, otherwise: 5 };

    #[test]
    fn the_hash_is_the_published_one() {
        for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn the_same_uid_gives_the_same_seed() {
        assert_eq!(of_uid(UID), of_uid(&UID.to_uppercase()));
        assert_ne!(of_uid(UID), of_uid(&UID.replace('7', "8")));
        let bytes = [0x7d, 0x1a, 0x2b, 0x3c, 0x4e, 0x5f, 0x4a, 0x6b];
        let bytes = [bytes, [0x8c, 0x7d, 0x9e, 0x0f, 0x1a, 0x2b, 0x3c, 0x4d]].concat();
        assert_eq!(of_uid(UID), Some(fnv1a(&bytes)));
    }

    #[test]
    fn what_is_no_uuid_gives_none() {
        let plain = UID.replace('-', "");
        let signed = UID.replacen('7', "+", 1);
        for text in ["", "kubernetes", &plain, &signed, &UID[1..], &format!("{UID}-00")] {
            assert_eq!(of_uid(text), None, "{text}");
        }
    }

    #[test]
    fn a_given_seed_wins() {
        let seed = SeedRule::Given(5).choose(Some(UID));
        assert_eq!(seed, Seed { value: 5, of_cluster: false });
    }

    #[test]
    fn a_cluster_gives_its_own() {
        let value = of_uid(UID).unwrap();
        let seed = Seed { value, of_cluster: true };
        assert_eq!(CLUSTER.choose(Some(UID)), seed);
        let again = SeedRule::OfCluster { before: Some(9), otherwise: 5 };
        assert_eq!(again.choose(Some(UID)), seed);
    }

    #[test]
    fn without_a_uid_the_maps_count_and_then_the_command_line() {
        let again = SeedRule::OfCluster { before: Some(9), otherwise: 5 };
        assert_eq!(again.choose(None), Seed { value: 9, of_cluster: true });
        for uid in [None, Some("")] {
            assert_eq!(CLUSTER.choose(uid), Seed { value: 5, of_cluster: false });
        }
    }
}
