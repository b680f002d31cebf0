"""Kill a run again and again, and check that nothing is lost; see ``__main__``."""

from mmgps.requirements import require

require('mmseg')
