//! A table of things under way, named by number and generation: a late answer to one that has
//! ended finds nothing, instead of the next one in the same place.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct JobId {
    pub index: u32,
    pub generation: u32,
}

impl JobId {
    /// As one number, for a token.
    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub fn unpack(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 }
    }
}

#[derive(Debug)]
pub struct Jobs<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Jobs<T> {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, job: T) -> JobId {
        if let Some(index) = self.free.pop() {
            let (generation, slot) = &mut self.slots[index as usize];
            *generation = generation.wrapping_add(1);
            *slot = Some(job);
            return JobId { index, generation: *generation };
        }
        self.slots.push((0, Some(job)));
        JobId { index: self.slots.len() as u32 - 1, generation: 0 }
    }

    pub fn get_mut(&mut self, id: JobId) -> Option<&mut T> {
        let (generation, slot) = self.slots.get_mut(id.index as usize)?;
        if *generation == id.generation { slot.as_mut() } else { None }
    }

    pub fn get(&self, id: JobId) -> Option<&T> {
        let (generation, slot) = self.slots.get(id.index as usize)?;
        if *generation == id.generation { slot.as_ref() } else { None }
    }

    pub fn remove(&mut self, id: JobId) -> Option<T> {
        let (generation, slot) = self.slots.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let job = slot.take()?;
        self.free.push(id.index);
        Some(job)
    }

    pub fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, (_, slot))| slot.is_some())
            .map(|(index, &(generation, _))| JobId { index: index as u32, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_ended_job_never_means_the_next_one() {
        let mut jobs = Jobs::default();
        let first = jobs.insert("first");
        assert_eq!(jobs.remove(first), Some("first"));
        let second = jobs.insert("second");
        assert_eq!(first.index, second.index);
        assert_eq!(jobs.get_mut(first), None);
        assert_eq!(jobs.remove(first), None);
        assert_eq!(jobs.get(JobId::unpack(second.pack())), Some(&"second"));
        assert_eq!(jobs.len(), 1);
    }
}
