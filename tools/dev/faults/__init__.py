"""Kill a run again and again, and check that nothing is lost; see ``__main__``."""

from mmgps.utils.requirements import require

require('mmseg')
