"""Where does a patch of one view lie in another? Dense matching, and consistency of features across views."""
