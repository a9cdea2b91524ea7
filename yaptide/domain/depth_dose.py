"""Numbers that physicists read off a depth-dose curve: the client's, which reads them in the same way."""

from yaptide_client.depth_dose import (
    NO_RANGE as NO_RANGE,
)
from yaptide_client.depth_dose import (
    Range as Range,
)
from yaptide_client.depth_dose import (
    bragg_peak as bragg_peak,
)
from yaptide_client.depth_dose import (
    is_depth_curve as is_depth_curve,
)
from yaptide_client.depth_dose import (
    length_in_mm as length_in_mm,
)
from yaptide_client.depth_dose import (
    read_range as read_range,
)
