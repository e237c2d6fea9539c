//! What plugins remember between the extension points of one scheduling cycle.

use std::{
    any::{Any, TypeId},
    fmt,
};

trait Slot: Any + Send + Sync {
    fn fork(&self) -> Box<dyn Slot>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Clone + Send + Sync + 'static> Slot for T {
    fn fork(&self) -> Box<dyn Slot> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Values of one cycle, one per type: a plugin that computes something in PreFilter keeps it in a
/// type of its own and finds it again in Filter. Cloning forks the state, for what-if questions.
#[derive(Default)]
pub struct CycleState {
    // A handful at most: a scan is faster than a hash.
    slots: Vec<(TypeId, Box<dyn Slot>)>,
}

impl CycleState {
    /// Keeps a value, in place of one of the same type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        self.slots.retain(|(have, _)| *have != id);
        self.slots.push((id, Box::new(value)));
    }

    /// Keeps no value of a type any more.
    pub fn remove<T: Clone + Send + Sync + 'static>(&mut self) {
        let id = TypeId::of::<T>();
        self.slots.retain(|(have, _)| *have != id);
    }

    /// The value of a type.
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        let (_, slot) = self.slots.iter().find(|(have, _)| *have == id)?;
        (**slot).as_any().downcast_ref()
    }

    /// The value of a type, to change it.
    pub fn get_mut<T: Clone + Send + Sync + 'static>(&mut self) -> Option<&mut T> {
        let id = TypeId::of::<T>();
        let (_, slot) = self.slots.iter_mut().find(|(have, _)| *have == id)?;
        (**slot).as_any_mut().downcast_mut()
    }
}

impl Clone for CycleState {
    fn clone(&self) -> Self {
        Self { slots: self.slots.iter().map(|(id, slot)| (*id, (**slot).fork())).collect() }
    }
}

impl fmt::Debug for CycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CycleState({} values)", self.slots.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_per_type_and_forks_are_apart() {
        let mut state = CycleState::default();
        state.insert(1u32);
        state.insert(2u32);
        state.insert("text");
        let mut fork = state.clone();
        *fork.get_mut::<u32>().unwrap() = 9;
        assert_eq!((state.get::<u32>(), fork.get::<u32>()), (Some(&2), Some(&9)));
        assert_eq!(state.get::<u64>(), None);
    }
}
