//! A semaphore whose capacity can change while permits are out. Waiters get permits in the order of arrival.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Grants at most `capacity` permits at a time.
#[derive(Clone)]
pub(crate) struct ResizableSemaphore(Arc<SemaphoreInner>);

struct SemaphoreInner {
    free: Semaphore,
    state: Mutex<SemaphoreState>,
}

struct SemaphoreState {
    capacity: usize,
    /// Permits out beyond the capacity. So many returned permits are not granted again.
    excess: usize,
}

/// A permit of the semaphore, returned when it is dropped.
pub(crate) struct CapacityPermit(ResizableSemaphore);

impl ResizableSemaphore {
    /// Creates a semaphore. The capacity is at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self(Arc::new(SemaphoreInner {
            free: Semaphore::new(capacity),
            state: Mutex::new(SemaphoreState { capacity, excess: 0 }),
        }))
    }

    /// Waits for a permit.
    pub(crate) async fn acquire(&self) -> CapacityPermit {
        match self.0.free.acquire().await {
            Ok(permit) => permit.forget(),
            // Only a closed semaphore fails, and this one is never closed.
            Err(_) => self.0.state.lock().excess += 1,
        }
        CapacityPermit(self.clone())
    }

    /// Takes a permit at once, even above the capacity.
    pub(crate) fn acquire_over_capacity(&self) -> CapacityPermit {
        match self.0.free.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => self.0.state.lock().excess += 1,
        }
        CapacityPermit(self.clone())
    }

    /// Changes the capacity and returns the old one. Granted permits stay valid.
    pub(crate) fn set_capacity(&self, capacity: usize) -> usize {
        let mut state = self.0.state.lock();
        let before = std::mem::replace(&mut state.capacity, capacity.max(1));
        if state.capacity < before {
            let removed = before - state.capacity;
            state.excess += removed - self.0.free.forget_permits(removed);
        } else {
            let added = state.capacity - before;
            let used = added.min(state.excess);
            state.excess -= used;
            self.0.free.add_permits(added - used);
        }
        before
    }

    /// Returns the capacity.
    pub(crate) fn capacity(&self) -> usize {
        self.0.state.lock().capacity
    }
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        let SemaphoreInner { free, state } = &*self.0.0;
        let mut state = state.lock();
        match state.excess.checked_sub(1) {
            Some(excess) => state.excess = excess,
            None => free.add_permits(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn capacity_changes_while_permits_are_out() {
        let semaphore = ResizableSemaphore::new(3);
        let mut permits = vec![
            semaphore.acquire().await,
            semaphore.acquire().await,
            semaphore.acquire().await,
        ];
        assert_eq!(semaphore.set_capacity(1), 3);
        permits.truncate(1);
        let mut waiter = Box::pin(semaphore.acquire());
        assert!((&mut waiter).now_or_never().is_none());
        assert_eq!(semaphore.set_capacity(2), 1);
        permits.extend(waiter.now_or_never());
        assert_eq!(permits.len(), 2);
        // Shrinking takes free permits first.
        semaphore.set_capacity(5);
        semaphore.set_capacity(3);
        permits.extend(semaphore.acquire().now_or_never());
        assert_eq!(permits.len(), 3);
        assert!(semaphore.acquire().now_or_never().is_none());
        drop(permits);
        assert_eq!(semaphore.0.free.available_permits(), 3);
    }

    #[tokio::test]
    async fn permit_over_capacity_is_not_granted_again() {
        let semaphore = ResizableSemaphore::new(1);
        let first = semaphore.acquire().await;
        let second = semaphore.acquire_over_capacity();
        drop(first);
        assert!(semaphore.acquire().now_or_never().is_none());
        // Growing covers a permit that is out before it grants another.
        semaphore.set_capacity(2);
        let third = semaphore.acquire_over_capacity();
        let fourth = semaphore.acquire_over_capacity();
        semaphore.set_capacity(3);
        assert!(semaphore.acquire().now_or_never().is_none());
        drop((second, third, fourth));
        assert_eq!(semaphore.0.free.available_permits(), 3);
    }
}
