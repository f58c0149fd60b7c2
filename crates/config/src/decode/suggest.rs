//! What was probably meant? The nearest of the names that would have been right.

/// The name that is nearest to `written`, if one is near enough to be what was meant.
pub(crate) fn closest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    /// Longer words are no slips of the pen; the limit keeps the cost of odd input small.
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let simple = simplify(written);
    let allowed = (simple.len() / 3).max(1);
    names
        .map(|name| (distance(&simple, &simplify(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letters that are easily confused made equal: case, and the separators of the different spellings.
fn simplify(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Number of letters to add, remove, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_recognised() {
        let names = ["hosts", "gateways", "http", "trafficPolicy", "match"];
        for (written, meant) in [
            ("host", Some("hosts")),
            ("gatway", Some("gateways")),
            ("htpp", Some("http")),
            ("traffic_policy", Some("trafficPolicy")),
            ("trafficpolcy", Some("trafficPolicy")),
            ("mathc", Some("match")),
            ("retries", None),
            ("", None),
        ] {
            assert_eq!(closest(written, names.into_iter()), meant, "{written}");
        }
    }

    #[test]
    fn a_swap_of_neighbours_is_one_step() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("htpp"), &chars("http")), 1);
        assert_eq!(distance(&chars("abcd"), &chars("acbd")), 1);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
