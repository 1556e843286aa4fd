//! Calls itself until the stack is full.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::stack);
