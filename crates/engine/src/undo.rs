//! The undo stack of a multi-step change: what was done is undone in reverse order unless the change is kept.

use model::{Error, Result};

/// Steps that would undo what was done so far.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() -> Result<()> + 'a>>,
}

impl<'a> Undo<'a> {
    /// An empty stack.
    pub fn new() -> Self {
        Self::default()
    }
    /// Remembers how to undo what was just done.
    pub fn push(&mut self, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push(Box::new(step));
    }
    /// The change is complete: forget the steps.
    pub fn keep(mut self) {
        self.steps.clear();
    }
    /// Undoes everything, to the end, and attaches what failed to the error that caused it.
    pub fn roll_back(mut self, cause: Error) -> Error {
        let failures: Vec<Error> = self.steps.drain(..).rev().filter_map(|step| step().err()).collect();
        cause.with_undo_failures(failures)
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for step in self.steps.drain(..).rev() {
            // A panic or an early return without `roll_back`: still undo; there is nobody left to tell.
            let _ = step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn undoes_in_reverse_and_keeps_every_failure() {
        let order = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        for step in 1..=3 {
            let order = &order;
            undo.push(move || {
                order.borrow_mut().push(step);
                if step == 2 { Err(Error::internal("step 2")) } else { Ok(()) }
            });
        }
        let error = undo.roll_back(Error::invalid("cause"));
        assert_eq!(*order.borrow(), [3, 2, 1]);
        assert_eq!(error.to_string(), "cause; undoing also failed: step 2");
    }

    #[test]
    fn keeps_what_is_kept() {
        let mut undo = Undo::new();
        undo.push(|| panic!("must not run"));
        undo.keep();
    }
}
