"""Kills a run, again and again, and looks whether anything is lost: python -m faults --kills 30"""

from mmgps.utils.requirements import require

require('mmseg')
