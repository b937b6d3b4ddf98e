"""`recipe watch`: each checkpoint that another trainer writes is probed as it appears, and never half of one."""
