//! Imports `inference`, a capability that it is not granted.

fn call_ungranted_inference() {
    weir_sdk::inference::generate("Which key opens the door?", 4096).ok();
}

weir_hostile::attack_in_every_role!(call_ungranted_inference);
