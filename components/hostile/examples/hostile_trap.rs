//! Panics in every call; the message must reach the tenant's log, the function's name the error.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::trap);
