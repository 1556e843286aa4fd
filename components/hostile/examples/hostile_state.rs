//! Imports `state`, a capability that it is not granted.

fn call_ungranted_state() {
    let calls = weir_sdk::state::get("calls").ok().flatten().unwrap_or_default();
    weir_sdk::state::set("calls", &[calls, vec![1]].concat()).ok();
}

weir_hostile::attack_in_every_role!(call_ungranted_state);
