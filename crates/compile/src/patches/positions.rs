//! Where in a list does a patch do its work? The rules for inserting, replacing and removing that all lists share.

use std::sync::Arc;

use super::report::Report;
use super::{About, Change, Patch, Place};

/// What happens to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Insert(usize),
    Replace(usize),
    Remove(Vec<usize>),
}

/// What a change does to a list. `chosen` tells whether an element is the one that the patch names; `None` when the
/// patch names none: then before is the beginning and after is the end, and nothing is replaced or removed.
/// `None` is returned when nothing happens.
pub(super) fn plan<M, T>(list: &[T], change: &Change<M>, chosen: Option<&dyn Fn(&T) -> bool>) -> Option<Edit> {
    let first = || chosen.map(|chosen| list.iter().position(chosen));
    match change {
        Change::Merge(..) => None,
        Change::Insert(_, Place::First) => Some(Edit::Insert(0)),
        Change::Insert(_, Place::Last) => Some(Edit::Insert(list.len())),
        Change::Insert(_, Place::Before) => first().unwrap_or(Some(0)).map(Edit::Insert),
        Change::Insert(_, Place::After) => match first() {
            None => Some(Edit::Insert(list.len())),
            Some(index) => index.map(|index| Edit::Insert(index + 1)),
        },
        Change::Replace(_) => first().flatten().map(Edit::Replace),
        Change::Remove => {
            let chosen = chosen?;
            let indices: Vec<usize> = (0..list.len()).filter(|index| chosen(&list[*index])).collect();
            (!indices.is_empty()).then_some(Edit::Remove(indices))
        }
    }
}

/// Carries an edit out. `value` makes the new element.
pub(super) fn carry_out<T>(list: &mut Vec<T>, edit: Edit, value: impl FnOnce() -> Option<T>) {
    match edit {
        Edit::Insert(index) => {
            if let Some(value) = value() {
                list.insert(index, value);
            }
        }
        Edit::Replace(index) => {
            if let (Some(place), Some(value)) = (list.get_mut(index), value()) {
                *place = value;
            }
        }
        Edit::Remove(indices) => {
            let mut index = 0;
            list.retain(|_| {
                index += 1;
                !indices.contains(&(index - 1))
            });
        }
    }
}

/// A list of filters and what keeps it usable.
pub(super) struct Filters<'a, M> {
    pub(super) list: &'a mut Vec<M>,
    pub(super) name: fn(&M) -> &str,
    /// False for a list that Envoy refuses.
    pub(super) sound: fn(&[M]) -> bool,
}

impl<M: Clone> Filters<'_, M> {
    /// Applies list operations in order; returns the patches that changed something. When the outcome of all is a list
    /// that Envoy refuses, those that make it so are left out and given to `refused`.
    pub(super) fn edit<'p>(
        &mut self,
        patches: &[&'p Arc<Patch<M>>],
        report: &mut Report,
        refused: impl Fn(&mut Report, &About, &M),
    ) -> Vec<&'p About> {
        let mut applied = Vec::new();
        let was_sound = (self.sound)(self.list);
        let mut list = self.list.clone();
        for patch in patches {
            if self.apply(&mut list, patch) {
                report.matched(&patch.about);
                applied.push(&patch.about);
            }
        }
        if !was_sound || (self.sound)(&list) {
            *self.list = list;
            return applied;
        }
        applied.clear();
        for patch in patches {
            let mut next = self.list.clone();
            if !self.apply(&mut next, patch) {
                continue;
            }
            if (self.sound)(&next) {
                *self.list = next;
                applied.push(&patch.about);
                continue;
            }
            let value = match &patch.change {
                Change::Insert(value, _) | Change::Replace(value) => value.clone(),
                Change::Merge(value, _) => value.message.clone(),
                Change::Remove => match self.list.iter().find(|filter| names(&patch.about, (self.name)(filter))) {
                    Some(removed) => removed.clone(),
                    None => continue,
                },
            };
            refused(report, &patch.about, &value);
        }
        applied
    }

    fn apply(&self, list: &mut Vec<M>, patch: &Patch<M>) -> bool {
        let name = self.name;
        let chosen = |filter: &M| names(&patch.about, name(filter));
        let chosen: Option<&dyn Fn(&M) -> bool> = match patch.about.element {
            Some(_) => Some(&chosen),
            None => None,
        };
        let Some(edit) = plan(list, &patch.change, chosen) else {
            return false;
        };
        carry_out(list, edit, || match &patch.change {
            Change::Insert(value, _) | Change::Replace(value) => Some(value.clone()),
            Change::Merge(..) | Change::Remove => None,
        });
        true
    }
}

fn names(about: &About, name: &str) -> bool {
    about.element.as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(change: Change<&str>, chosen: Option<&str>) -> Option<Edit> {
        let list = ["a", "b", "b"];
        match chosen {
            Some(name) => plan(&list, &change, Some(&|element: &&str| *element == name)),
            None => plan(&list, &change, None),
        }
    }

    #[test]
    fn a_named_element_is_the_first_that_matches() {
        let insert = |place| Change::Insert("x", place);
        assert_eq!(planned(insert(Place::Before), Some("b")), Some(Edit::Insert(1)));
        assert_eq!(planned(insert(Place::After), Some("b")), Some(Edit::Insert(2)));
        assert_eq!(planned(Change::Replace("x"), Some("b")), Some(Edit::Replace(1)));
        assert_eq!(planned(Change::Remove, Some("b")), Some(Edit::Remove(vec![1, 2])));
        for change in [insert(Place::Before), insert(Place::After), Change::Replace("x"), Change::Remove] {
            assert_eq!(planned(change, Some("c")), None);
        }
    }

    #[test]
    fn without_a_name_the_ends_are_meant() {
        let insert = |place| Change::Insert("x", place);
        assert_eq!(planned(insert(Place::Before), None), Some(Edit::Insert(0)));
        assert_eq!(planned(insert(Place::After), None), Some(Edit::Insert(3)));
        assert_eq!(planned(Change::Replace("x"), None), None);
        assert_eq!(planned(Change::Remove, None), None);
        for chosen in [None, Some("b"), Some("c")] {
            assert_eq!(planned(insert(Place::First), chosen), Some(Edit::Insert(0)));
            assert_eq!(planned(insert(Place::Last), chosen), Some(Edit::Insert(3)));
        }
    }
}
