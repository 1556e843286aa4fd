//! Wants a language model, which it is not granted.

fn misbehave() {
    weir_sdk::inference::generate("Which key opens the door?", 4096).ok();
}

weir_hostile::in_every_role!(misbehave);
