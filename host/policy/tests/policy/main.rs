//! The adapter against real components: the default ones, and those of `components/hostile`. Build them with
//! `components/build`.

mod asking;
mod crowd;
mod defaults;
mod hostile;
mod nonsense;
mod opening;
mod recordings;
mod support;
