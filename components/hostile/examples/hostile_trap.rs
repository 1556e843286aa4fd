//! Panics in every call. The message must appear in the tenant's log, and the function's name in the error.

use weir_hostile::attack;

weir_hostile::attack_in_every_role!(attack::trap);
