//! Panics in every call; the message must reach the tenant's log, the function's name the error.

fn misbehave() {
    panic!("the weir is broken");
}

weir_hostile::in_every_role!(misbehave);
