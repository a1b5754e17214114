#!/bin/bash
# Runs a command in the environment that has vditrack, on top of the distribution and the workspace.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /opt/workspace/install/setup.bash
source /opt/environment/bin/activate
exec "$@"
