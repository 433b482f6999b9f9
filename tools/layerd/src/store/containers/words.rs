//! Names for containers whose client gives none: an adjective and a noun.

const ADJECTIVES: [&str; 48] = [
    "amber", "ample", "azure", "bold", "brave", "brisk", "calm", "candid", "clever", "cosy",
    "crisp", "dapper", "eager", "early", "fair", "fleet", "fond", "frank", "fresh", "gentle",
    "glad", "golden", "grand", "happy", "hardy", "honest", "jolly", "keen", "kind", "lively",
    "lucky", "mellow", "merry", "modest", "neat", "noble", "patient", "proud", "quick", "quiet",
    "ready", "silver", "smart", "steady", "sunny", "swift", "tidy", "witty",
];

const NOUNS: [&str; 48] = [
    "acorn", "alder", "anchor", "aspen", "badger", "beacon", "birch", "bison", "brook", "canyon",
    "cedar", "comet", "coral", "crane", "delta", "falcon", "fern", "finch", "fjord", "glacier",
    "harbor", "hazel", "heron", "island", "juniper", "lagoon", "lark", "linden", "lynx", "maple",
    "marten", "meadow", "moss", "oak", "orchid", "osprey", "otter", "pebble", "pine", "prairie",
    "reef", "river", "robin", "rowan", "spruce", "tern", "walnut", "willow",
];

/// The name for a random number; there are 48 x 48 x 100 of them.
pub(super) fn name(random: u64) -> String {
    let pick = |words: &[&'static str; 48], number: u64| {
        words[usize::try_from(number % 48).unwrap_or_default()]
    };
    let adjective = pick(&ADJECTIVES, random);
    let noun = pick(&NOUNS, random / 48);
    format!("{adjective}-{noun}-{}", random / (48 * 48) % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_names_are_lawful() {
        for words in [ADJECTIVES, NOUNS] {
            let mut sorted = words.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted, words, "the words are in order, each once");
        }
        for random in [0, 1, 47, 48, 230_399, u64::MAX] {
            assert!(super::super::checked_name(&name(random)).is_ok(), "{}", name(random));
        }
        assert_ne!(name(0), name(48 * 48), "the number counts as well");
    }
}
