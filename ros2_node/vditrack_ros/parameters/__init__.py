"""The node's parameters: definition, table, checked settings, declaration in ROS."""
