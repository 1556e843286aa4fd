//! Collects handles and gives none back.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::handles);
