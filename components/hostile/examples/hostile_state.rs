//! Wants to keep state, which it is not granted.

fn misbehave() {
    let kept = weir_sdk::state::get("calls").ok().flatten().unwrap_or_default();
    weir_sdk::state::set("calls", &[kept, vec![1]].concat()).ok();
}

weir_hostile::in_every_role!(misbehave);
