"""Ray on this machine or on a cluster, the nodes and what is checked on them, and how processes end."""
